;; A table its manifest does not name, by SQL.
;; ends: denied secrets
(data (i32.const 2048) "select * from secrets")
(func (export "run") (param i32 i32) (result i32)
  (call $sql (i32.const 2048) (i32.const 21) (i32.const 0) (i32.const 0) (i32.const 512))
  (i32.const 512))
