;; A text whose end wraps around to the beginning of its memory.
;; ends: trapped out of bounds
(func (export "run") (param i32 i32) (result i32) (call $log (i32.const 2) (i32.const 0xfffffff0) (i32.const 0x20)) (i32.const 1024))
