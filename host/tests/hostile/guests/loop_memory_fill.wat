;; Fills all the memory it may have, for ever: one instruction that no epoch interrupts.
;; ends: exhausted cpu
(func (export "run") (param i32 i32) (result i32)
  (drop (memory.grow (i32.const 400)))
  (loop (memory.fill (i32.const 0) (i32.const 7) (i32.mul (memory.size) (i32.const 65536))) (br 0))
  unreachable)
