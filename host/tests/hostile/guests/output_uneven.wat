;; A column with fewer values than there are rows.
;; ends: invalid
(data (i32.const 2048) "\40\00\00\00\01\00\00\00\01")
(data (i32.const 2176) "\01\00\00\00\00\08\00\00\02\00\00\00")
(func (export "run") (param i32 i32) (result i32)
  (call $emit (i32.const 64) (i32.const 1) (i32.const 50) (i32.const 2048) (i32.const 1) (i32.const 2176) (i32.const 1) (i32.const 512))
  (i32.const 512))
