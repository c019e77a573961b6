;; Fills a table for ever.
;; ends: exhausted cpu
(table $t 20000 funcref)
(func (export "run") (param i32 i32) (result i32)
  (loop (table.fill $t (i32.const 0) (ref.null func) (i32.const 20000)) (br 0))
  unreachable)
