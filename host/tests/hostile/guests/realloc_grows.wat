;; Takes ten pages for each byte the host has for it, and asks for ever.
;; ends: exhausted memory
;; own: realloc
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (local $at i32)
  (local.set $at (memory.grow (i32.const 10)))
  (if (i32.eq (local.get $at) (i32.const -1)) (then unreachable))
  (i32.mul (local.get $at) (i32.const 65536)))
(func (export "run") (param i32 i32) (result i32) (loop (call $list_tables (i32.const 512)) (br 0)) unreachable)
