;; Begins with a table of ten million entries.
;; refused: table
(table 9000000 funcref)
(func (export "run") (param i32 i32) (result i32) (i32.const 1024))
