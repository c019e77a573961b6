;; A parameter of a type that does not exist.
;; ends: trapped unexpected discriminant
(data (i32.const 2048) "\10\00\00\00\06\00\00\00\63\00\00\00\00\00\00\00")
(func (export "run") (param i32 i32) (result i32)
  (call $sql (i32.const 16) (i32.const 6) (i32.const 2048) (i32.const 1) (i32.const 512))
  (i32.const 512))
