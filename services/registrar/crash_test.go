package registrar

const crashVariable = "F2MESH_TEST_CRASH"

func crashAt(string) int { return 1 }
