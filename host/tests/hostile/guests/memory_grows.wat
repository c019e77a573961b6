;; Takes memory page by page and writes to each, until it gets none.
;; ends: exhausted memory
(func (export "run") (param i32 i32) (result i32)
  (local $at i32)
  (loop
    (local.set $at (memory.grow (i32.const 1)))
    (if (i32.eq (local.get $at) (i32.const -1)) (then unreachable))
    (i32.store (i32.mul (local.get $at) (i32.const 65536)) (i32.const 1))
    (br 0))
  unreachable)
