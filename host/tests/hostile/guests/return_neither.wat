;; Returns what is neither good nor bad.
;; ends: trapped invalid expected discriminant
(data (i32.const 2048) "\09")
(func (export "run") (param i32 i32) (result i32) (i32.const 2048))
