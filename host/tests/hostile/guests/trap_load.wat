;; Reads past the end of its memory.
;; ends: trapped out of bounds memory access
(func (export "run") (param i32 i32) (result i32) (i32.load (i32.const 0x7fff0000)))
