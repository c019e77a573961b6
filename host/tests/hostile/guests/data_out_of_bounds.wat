;; Data that begins past the end of its memory.
;; ends: trapped out of bounds memory access
(data (i32.const 0x7fff0000) "x")
(func (export "run") (param i32 i32) (result i32) (i32.const 1024))
