;; Begins with more memory than its budget, less than the host's slots have.
;; ends: exhausted memory
;; own: memory
(memory (export "memory") 1024)
(func (export "run") (param i32 i32) (result i32) (i32.const 1024))
