;; Four billion rows of no columns.
;; ends: invalid or exhausted output
(func (export "run") (param i32 i32) (result i32)
  (call $emit (i32.const 64) (i32.const 1) (i32.const -1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512))
  (i32.const 512))
