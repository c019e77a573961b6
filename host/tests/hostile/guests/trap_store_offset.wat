;; Writes past the end of its memory by an offset that does not fit 32 bits with its address.
;; ends: trapped out of bounds memory access
(func (export "run") (param i32 i32) (result i32) (i64.store offset=0xffffffff (i32.const -1) (i64.const 1)) (i32.const 1024))
