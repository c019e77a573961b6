;; Calls an entry of a table that is empty.
;; ends: trapped uninitialized element
(type $f (func))
(table 4 funcref)
(func (export "run") (param i32 i32) (result i32) (call_indirect (type $f) (i32.const 3)) (i32.const 1024))
