;; Gives the host the same room each time, its own data included. It hurts nobody but itself.
;; ends: ok
;; own: realloc
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
(func (export "run") (param i32 i32) (result i32) (call $list_tables (i32.const 512)) (i32.const 1024))
