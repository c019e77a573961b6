;; Objects that the host would have to collect.
;; refused: gc
;; component
(component (core module (type $s (struct (field i32))) (func (drop (struct.new_default $s)))))
