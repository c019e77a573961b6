;; Gives the host room that is not there.
;; ends: trapped realloc
;; own: realloc
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const -16))
(func (export "run") (param i32 i32) (result i32) (call $list_tables (i32.const 512)) (i32.const 1024))
