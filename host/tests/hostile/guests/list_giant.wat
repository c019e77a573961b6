;; Two hundred million parameters for a query, it says.
;; ends: trapped out of bounds
(func (export "run") (param i32 i32) (result i32)
  (call $sql (i32.const 16) (i32.const 6) (i32.const 0) (i32.const 0x0fffffff) (i32.const 512))
  (i32.const 512))
