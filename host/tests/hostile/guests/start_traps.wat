;; Traps before it can be called.
;; ends: trapped integer divide by zero
(func $start (drop (i32.div_u (i32.const 1) (i32.const 0))))
(start $start)
(func (export "run") (param i32 i32) (result i32) (i32.const 1024))
