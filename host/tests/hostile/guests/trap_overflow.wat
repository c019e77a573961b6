;; Divides the smallest number by minus one.
;; ends: trapped integer overflow
(func (export "run") (param i32 i32) (result i32) (i32.div_s (i32.const 0x80000000) (i32.const -1)))
