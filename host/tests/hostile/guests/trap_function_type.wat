;; Calls a function as if it had another type.
;; ends: trapped indirect call type mismatch
(type $f (func (param i64) (result i64)))
(table 1 funcref)
(elem (i32.const 0) $g)
(func $g)
(func (export "run") (param i32 i32) (result i32) (drop (call_indirect (type $f) (i64.const 1) (i32.const 0))) (i32.const 1024))
