;; Begins with 4 GiB of memory.
;; refused: memory
;; own: memory
(memory (export "memory") 65536)
(func (export "run") (param i32 i32) (result i32) (i32.const 1024))
