;; A view that is nested twenty thousand deep.
;; ends: invalid
(func (export "run") (param i32 i32) (result i32)
  (memory.fill (i32.const 65536) (i32.const 91) (i32.const 20000))
  (call $view (i32.const 65536) (i32.const 20000) (i32.const 512))
  (i32.const 512))
