;; The place for a result is past the end of its memory.
;; ends: trapped out of bounds
(func (export "run") (param i32 i32) (result i32)
  (call $table (i32.const 16) (i32.const 6) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const -8))
  (i32.const 1024))
