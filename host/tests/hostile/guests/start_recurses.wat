;; Overflows its stack before it can be called.
;; ends: trapped call stack exhausted
(func $start (call $start) (call $start))
(start $start)
(func (export "run") (param i32 i32) (result i32) (i32.const 1024))
