;; Writes a line of 16 MiB, for ever.
;; ends: exhausted cpu or exhausted calls
(func (export "run") (param i32 i32) (result i32)
  (drop (memory.grow (i32.const 300)))
  (memory.fill (i32.const 65536) (i32.const 120) (i32.const 16777216))
  (loop (call $log (i32.const 4) (i32.const 65536) (i32.const 16777216)) (br 0))
  unreachable)
