;; Makes an integer of what is no number.
;; ends: trapped conversion to integer
(func (export "run") (param i32 i32) (result i32) (i32.trunc_f64_s (f64.const nan)))
