;; A log level that does not exist.
;; ends: trapped unexpected discriminant
(func (export "run") (param i32 i32) (result i32) (call $log (i32.const 200) (i32.const 16) (i32.const 6)) (i32.const 1024))
