;; Asks for 4 GiB in one go, and goes on as if it had got them.
;; ends: trapped out of bounds memory access
(func (export "run") (param i32 i32) (result i32)
  (drop (memory.grow (i32.const 65000)))
  (i32.store (i32.const 0x70000000) (i32.const 1))
  (i32.const 1024))
