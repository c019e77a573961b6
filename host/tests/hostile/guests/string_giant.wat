;; A text of 2 GiB, it says.
;; ends: trapped out of bounds
(func (export "run") (param i32 i32) (result i32) (call $log (i32.const 2) (i32.const 0) (i32.const 0x7fffffff)) (i32.const 1024))
