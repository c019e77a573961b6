;; Memory with addresses of 64 bits.
;; refused: memory64
;; component
(component (core module (memory i64 1)))
