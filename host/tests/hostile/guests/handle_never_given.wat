;; A handle it never got.
;; ends: trapped unknown handle index
(func (export "run") (param i32 i32) (result i32) (call $limit (i32.const 77777) (i64.const 0) (i64.const 1) (i32.const 512)) (i32.const 512))
