;; A name with half of a surrogate pair in it.
;; ends: trapped utf-8
(data (i32.const 2048) "\ed\a0\80")
(func (export "run") (param i32 i32) (result i32)
  (call $table (i32.const 2048) (i32.const 3) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 512))
  (i32.const 512))
