;; Returns what is neither good nor bad.
;; ends: trapped expected
(data (i32.const 2048) "\09")
(func (export "run") (param i32 i32) (result i32) (i32.const 2048))
