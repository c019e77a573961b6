;; Calls an entry past the end of a table.
;; ends: trapped undefined element
(type $f (func))
(table 1 funcref)
(func (export "run") (param i32 i32) (result i32) (call_indirect (type $f) (i32.const 1000000)) (i32.const 1024))
