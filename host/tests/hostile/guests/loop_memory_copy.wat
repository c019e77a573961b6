;; Copies half of its memory over the other half, for ever.
;; ends: exhausted cpu
(func (export "run") (param i32 i32) (result i32)
  (drop (memory.grow (i32.const 400)))
  (loop (memory.copy (i32.const 0) (i32.const 13107200) (i32.const 13000000)) (br 0))
  unreachable)
