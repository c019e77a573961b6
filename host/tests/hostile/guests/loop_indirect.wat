;; Two functions that call each other through a table, a hundred deep, for ever.
;; ends: exhausted cpu
(type $f (func (param i32)))
(table 2 funcref)
(elem (i32.const 0) $a $b)
(func $a (param i32) (if (local.get 0) (then (call_indirect (type $f) (i32.sub (local.get 0) (i32.const 1)) (i32.const 1)))))
(func $b (param i32) (if (local.get 0) (then (call_indirect (type $f) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))))
(func (export "run") (param i32 i32) (result i32) (loop (call $a (i32.const 100)) (br 0)) unreachable)
