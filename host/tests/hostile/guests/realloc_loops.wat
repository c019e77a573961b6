;; Loops for ever where the host asks it for room for what it gives back.
;; ends: exhausted cpu
;; own: realloc
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (loop (br 0)) unreachable)
(func (export "run") (param i32 i32) (result i32) (call $list_tables (i32.const 512)) (i32.const 1024))
