;; An option that is neither none nor some.
;; ends: trapped option
(func (export "run") (param i32 i32) (result i32)
  (call $table (i32.const 16) (i32.const 6) (i32.const 7) (i64.const 0) (i64.const 0) (i32.const 512))
  (i32.const 512))
