;; Puts out rows for ever, deaf to what it is told.
;; ends: exhausted output
(data (i32.const 2048) "\40\00\00\00\01\00\00\00\01")
(data (i32.const 2176) "\01\00\00\00\00\00\01\00\10\27\00\00")
(func (export "run") (param i32 i32) (result i32)
  (drop (memory.grow (i32.const 4)))
  (loop
    (call $emit (i32.const 64) (i32.const 1) (i32.const 10000) (i32.const 2048) (i32.const 1) (i32.const 2176) (i32.const 1) (i32.const 512))
    (br 0))
  unreachable)
