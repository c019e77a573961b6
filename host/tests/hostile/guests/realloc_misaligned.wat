;; Gives the host room at an odd address.
;; ends: trapped aligned
;; own: realloc
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65537))
(func (export "run") (param i32 i32) (result i32) (call $list_tables (i32.const 512)) (i32.const 1024))
