;; Asks for the dictionary of a column of numbers.
;; ends: trapped has no dictionary
(func (export "run") (param i32 i32) (result i32)
  (call $dictionary (call $stream (call $events)) (i32.const 0) (i32.const 0) (i32.const 512))
  (i32.const 1024))
