;; A table its manifest does not name.
;; ends: denied secrets
(func (export "run") (param i32 i32) (result i32)
  (call $table (i32.const 48) (i32.const 7) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 512))
  (i32.const 512))
