;; A text that is none.
;; ends: trapped utf-8
(data (i32.const 2048) "\ff\fe\c0\80")
(func (export "run") (param i32 i32) (result i32) (call $log (i32.const 2) (i32.const 2048) (i32.const 4)) (i32.const 1024))
