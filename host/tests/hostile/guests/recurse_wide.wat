;; Calls itself without end, with a frame as large as locals make it.
;; ends: trapped call stack exhausted
(func $down (param v128 v128 v128 v128 v128 v128 v128 v128) (result v128)
  (v128.xor
    (v128.xor (call $down (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6) (local.get 7) (local.get 0)) (local.get 3))
    (v128.xor (call $down (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6) (local.get 7) (local.get 0) (local.get 1)) (local.get 5))))
(func (export "run") (param i32 i32) (result i32)
  (local v128)
  (drop (call $down (local.get 2) (local.get 2) (local.get 2) (local.get 2) (local.get 2) (local.get 2) (local.get 2) (local.get 2)))
  unreachable)
