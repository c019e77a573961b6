;; Grows a table until it cannot.
;; ends: exhausted memory
(table $t 1 funcref)
(func (export "run") (param i32 i32) (result i32)
  (loop
    (if (i32.eq (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable))
    (br 0))
  unreachable)
