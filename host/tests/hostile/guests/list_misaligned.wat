;; A list of parameters at an odd address.
;; ends: trapped aligned
(func (export "run") (param i32 i32) (result i32)
  (call $sql (i32.const 16) (i32.const 6) (i32.const 2049) (i32.const 1) (i32.const 512))
  (i32.const 512))
