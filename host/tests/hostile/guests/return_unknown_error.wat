;; Fails with an error that does not exist.
;; ends: trapped unexpected discriminant
(data (i32.const 2048) "\01\00\00\00\63")
(func (export "run") (param i32 i32) (result i32) (i32.const 2048))
