;; A text that begins past the end of its memory.
;; ends: trapped out of bounds
(func (export "run") (param i32 i32) (result i32) (call $log (i32.const 2) (i32.const 0xfffffff0) (i32.const 8)) (i32.const 1024))
